"""The experiments of Gatys, Ecker and Bethge, A Neural Algorithm of Artistic Style (2015)."""
