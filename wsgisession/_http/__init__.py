"""Headers in, headers out: what of HTTP a session needs.  Private."""
