"""The programs that are served, one folder each: what its original's `main` does, over the engine.

A program reads its options once, makes its losses, and hands them to the engine. It may import engine/,
formats/ and torch7/, and another program's parts where its original took them over.
"""
