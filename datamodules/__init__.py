"""Training pairs and evaluation collections; one file a dataset.

`DATAMODULES` is everything that ``--data`` knows by a short name. The values are class paths, so that this
module imports nothing heavy; any other class path works on the command line as well.
"""

DATAMODULES: dict[str, str] = {
    "starter": "datamodules.starter.StarterDataModule",
    "starter_help": "datamodules.starter_help.StarterHelpDataModule",
    "tsv": "datamodules.tsv.TSVDataModule",
}
