"""A simulator: programs of verbs, run in every order that a seed can choose.

A request is a program; a scheduler lets one run at a time and may switch at every call
of the store and between any two verbs; the clock is virtual.  One integer replays a run.
``oracles`` says what no run may show, ``shrink`` prints the smallest program that does.
"""
