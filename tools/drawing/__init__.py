"""How the style images in examples/ are drawn; `tools/draw_styles.py` is the command."""
