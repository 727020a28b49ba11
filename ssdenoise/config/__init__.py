"""The configuration, defined once: pydantic models of the file, of the sheet, and of each stage's options.

`specs` holds the options of the stages, `models` the configuration file and the sheet, `project` both together and
checked. `config/schema.json` is generated from here (``ssdenoise schema``). Numbers of threads, GPUs and gigabytes are
not here but in the profile: they belong to a machine, not to a project.
"""
