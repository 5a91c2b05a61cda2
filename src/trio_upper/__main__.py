from trio_upper.cli import main

main()
