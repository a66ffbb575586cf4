"""Entry point of `csp-embed`."""

from csp_embed.cli import main

if __name__ == "__main__":
    main()
