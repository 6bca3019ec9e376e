"""Faults: every part of a federation killed, hung, cut off and slowed, in every phase of a job.

    make faults                        # the whole matrix; or: python -m dataflow.testing.faults
    python -m dataflow.testing.faults --only agent:hang --only s3

Each cell of the matrix (:mod:`~dataflow.testing.faults.cells`) is one real job over real sites on the
test bed: data at a site that is reached by SSH, workers that are jobs of Grid Engine, the result in
S3 (:mod:`~dataflow.testing.faults.scene`). The fault falls when the job's journal, or the store, shows
that the phase has come (:mod:`~dataflow.testing.faults.injure`). Who judges
(:mod:`~dataflow.testing.faults.judge`) asks nothing of this toolkit: results are opened with plain
xarray all the time, and compared with NumPy.
"""
