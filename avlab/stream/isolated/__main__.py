"""`python -m avlab.stream.isolated`: what an isolated server's handle starts."""

from avlab.stream.isolated.process import main

if __name__ == "__main__":
    main()
