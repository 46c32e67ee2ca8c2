"""The campaign: what was run, and the page docs/results.md that is written from what came out.

python -m results                  what the campaign is, part by part
python -m results run [PART …]     type its commands; finished trials are skipped, analyses are asked anew
python -m results gather [PART …]  bring tables and pictures from the record into docs/results
python -m results page             write the page from those alone (`make results` does both)
"""
