"""Applications of other people on our adapters: ``nox -s applications`` installs them."""
