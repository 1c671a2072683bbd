"""`python -m dsrl`."""

from dsrl.main import main

main()
