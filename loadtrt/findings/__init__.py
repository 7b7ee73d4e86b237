"""What is wrong with a measurement and what bounds it, each with evidence, cause and remedy. Pure."""
