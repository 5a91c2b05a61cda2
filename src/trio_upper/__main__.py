"""What starts the program: ``python -m trio_upper``, the script ``trio-upper``, the one file."""

from trio_upper.cli.early import keep_first_signals


def main() -> None:
    """Run the program; signals that come while it loads are kept."""
    keep_first_signals()
    from trio_upper.cli.main import main as run

    run()


if __name__ == "__main__":
    main()
