"""`python -m mmctr` is `mmctr`; by it torchrun starts the command line in several processes."""

from mmctr.cli import main

if __name__ == "__main__":
    main()
