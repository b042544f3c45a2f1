"""Frames: videos in, JPEG frames out. `__main__` is the stage, `decode` what ffmpeg does for it."""
