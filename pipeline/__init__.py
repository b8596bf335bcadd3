"""Rivulet: streaming audio and video classification with recurrent networks.

Read `pipeline.layers.stage` first: one law, `y, state = stage(x, state)`, holds for everything in the tensor graph.
"""
