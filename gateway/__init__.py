"""The portal's process: takes uploads, asks the model server, decides, answers, measures."""
