"""Entry point of `csp-embed`."""

import sys


def main() -> None:
    """Runs the command line; Ctrl-C while it is being imported ends quietly, too."""
    try:
        from csp_embed import process_clock

        process_clock.mark()
        from csp_embed.cli import main as run
    except KeyboardInterrupt:
        sys.exit(130)
    run()


if __name__ == "__main__":
    main()
