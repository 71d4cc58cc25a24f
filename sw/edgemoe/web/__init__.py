"""What the project's web servers share: where they listen (``listening``) and who may ask them (``access``).

``edgemoe.demo`` and ``edgemoe.serve`` are built on it; ``access`` needs their extra.
"""
