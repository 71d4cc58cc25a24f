"""``python -m edgemoe_models.train``"""

from edgemoe_models.train.command import main

main()
