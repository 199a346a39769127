"""neural_style.lua (jcjohnson, 2015): `options` as it read them, `story` as its main() ran."""
