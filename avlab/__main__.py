"""`python -m avlab` is the command line."""

import sys

from avlab.cli import main

sys.exit(main())
