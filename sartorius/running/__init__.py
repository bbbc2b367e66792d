"""How a command runs: configs become objects, input errors one line, devices processes."""
