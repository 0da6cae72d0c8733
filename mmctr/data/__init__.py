"""Files that people have become a `Dataset`: a catalog of items, and impressions in splits.

Whatever leaves this room is checked: ids are row numbers, histories ragged, labels 0 or 1. Imports
nothing of mmctr but what lies beside the rooms (config, errors, files).
"""
