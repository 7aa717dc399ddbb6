"""Training pairs and evaluation collections; one file a dataset.

`DATAMODULES` is everything that ``--data`` knows by a short name. The values are class paths, so that this
module imports nothing heavy; any other class path works on the command line as well.
"""

DATAMODULES: dict[str, str] = {
    "africlirmatrix": "datamodules.published.africlirmatrix.AfriCLIRMatrixDataModule",
    "afriqa": "datamodules.published.afriqa.AfriQADataModule",
    "ciral": "datamodules.published.ciral.CIRALDataModule",
    "flickr30k": "datamodules.flickr30k.datamodule.Flickr30kDataModule",
    "flickr30k_entities": "datamodules.flickr30k_entities.datamodule.Flickr30kEntitiesDataModule",
    "ir_datasets": "datamodules.published.ir_collection.IrDatasetsDataModule",
    "miracl": "datamodules.published.miracl.MIRACLDataModule",
    "mixture": "datamodules.mixture.MixtureDataModule",
    "mmarco": "datamodules.mmarco.datamodule.MMarcoDataModule",
    "schamoni": "datamodules.published.schamoni.SchamoniDataModule",
    "starter": "datamodules.starter.emoji.StarterDataModule",
    "starter_english": "datamodules.starter.english.StarterEnglishDataModule",
    "starter_images": "datamodules.starter.images.StarterImagesDataModule",
    "tsv": "datamodules.tsv.TSVDataModule",
    "wikiclir": "datamodules.published.wikiclir.WikiCLIRDataModule",
}
