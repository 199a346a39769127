"""artistic_video.lua and artistic_video_multiPass.lua (manuelruder/artistic-videos 40e7447): videos, held together by
optical flow. Comes in: option words or typed settings; goes out: images, files, lines. Imports the engine, torch7, and
what neural_style.lua shares with them.
"""
