"""`python -m kanaria`: the same command, where no console script is installed."""

from kanaria.app import main

main()
