"""`python -m lorablend.app.cli`, as `accelerate launch -m` starts it."""

from lorablend.app.cli.commands import main

main()
