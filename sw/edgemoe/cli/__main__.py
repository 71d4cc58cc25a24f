"""``python -m edgemoe.cli``"""

from edgemoe.cli.main import main

main()
