"""Training pairs and evaluation collections; one file a dataset.

`DATAMODULES` is everything that ``--data`` knows by a short name. The values are class paths, so that this
module imports nothing heavy; any other class path works on the command line as well.
"""

DATAMODULES: dict[str, str] = {
    "africlirmatrix": "datamodules.africlirmatrix.AfriCLIRMatrixDataModule",
    "ciral": "datamodules.ciral.CIRALDataModule",
    "flickr30k": "datamodules.flickr30k.Flickr30kDataModule",
    "flickr30k_entities": "datamodules.flickr30k_entities.Flickr30kEntitiesDataModule",
    "ir_datasets": "datamodules.ir_collection.IrDatasetsDataModule",
    "miracl": "datamodules.miracl.MIRACLDataModule",
    "mixture": "datamodules.mixture.MixtureDataModule",
    "mmarco": "datamodules.mmarco.MMarcoDataModule",
    "schamoni": "datamodules.schamoni.SchamoniDataModule",
    "starter": "datamodules.starter.StarterDataModule",
    "starter_english": "datamodules.starter_english.StarterEnglishDataModule",
    "starter_help": "datamodules.starter_help.StarterHelpDataModule",
    "starter_images": "datamodules.starter_images.StarterImagesDataModule",
    "tsv": "datamodules.tsv.TSVDataModule",
    "wikiclir": "datamodules.wikiclir.WikiCLIRDataModule",
}
