"""Doctor: what is wrong between this machine and the others, and what to do about it.

:mod:`~dataflow.session.doctor.examine` asks everybody at the same time; what an answer means is
decided in :mod:`~dataflow.session.doctor.judge`, which asks nobody.
"""
