from trio_upper.cli.main import main

main()
