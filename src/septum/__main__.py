"""python -m septum: the command line, also for torchrun -m septum."""

from septum.cli import main

if __name__ == "__main__":
    main()
