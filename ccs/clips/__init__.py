"""Clips: what the network sees of a video. `sampling` chooses, `transforms` crops, `dataset` reads."""
