"""Steps that need each other: run side by side in processes of their own, remembered, gone on with after anything.

A step (steps.py) is known by its key, a hash of what it does, of the code that does it, and of the keys of the steps it
needs; what is done under a key is not done again. schedule.py decides which comes next and hands it to a worker
(worker.py); memory.py remembers what became of it, and board.py shows it. What kill -9 loses is the steps under way,
and of those that train only what came after their last save.
"""
