"""``python -m edgemoe_models.qat``"""

import sys

from edgemoe_models.qat.command import main

sys.exit(main())
