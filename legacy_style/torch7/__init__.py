"""What the originals took from Torch7, ported piece by piece; each module names what it ports."""
