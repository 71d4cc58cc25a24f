"""Training of a model: ``edgemoe train``; ``--help`` lists the options.

A step takes one batch of each task, each through that task's gate and head, sums the losses' gradients and updates
the weights once, as M3ViT does (Liang et al., NeurIPS 2022, arXiv 2210.14793). Modules, of which ``config`` alone needs
no PyTorch:

    config        the options, and the model's shape that follows from them
    data          batches: arrays of a data set, augmented
    resident      batches of a data set that lies on the device
    augmentation  strong changes of pictures and labels
    losses        one loss for each kind of task
    optimizer     rates of the layers, the weights' moving average
    start         weights to start from
    trainer       model, optimizer, checkpoint
    processes     one process, or several of torchrun
    logs          CSV and TensorBoard
    loop          the whole run
"""
