#!/usr/bin/env bash
# From public sources (sources/, see README.md) to the checkpoint runs/en-small/last.
# A step whose result is there is skipped, so the same command goes on after an interruption.
set -euo pipefail
cd "$(dirname "$0")/../.."
recipe=recipes/en-small
base=sources/base/index.jsonl
resume() { if [ -e "$1" ]; then echo --resume; fi; }

# Speech: manifests of what was published, then 16 kHz FLAC. Nothing of held-out speakers, no text of the development split.
fetch_speech() { [ -e "data/fetched/$2" ] || python $recipe/fetch_speech.py "$1" "sources/$2" "data/fetched/$2" --without $base; }
fetch_speech librispeech mini
fetch_speech librispeech clean-100-a
fetch_speech librispeech clean-100-b
fetch_speech beside cathy
fetch_speech librispeech clean-100-c
for delta in 13 18 19 20; do fetch_speech commonvoice commonvoice$delta; done
[ -e data/speech ] || asr prepare index $base data/speech --drop-digits
[ -e data/more ] || asr prepare index data/fetched/*/manifest.jsonl data/more
[ -e data/labeled ] || asr prepare index sources/labeled/manifest.jsonl data/labeled --drop-digits
[ -e data/noise ] || asr prepare noise sources/noise data/noise --dev 0.2

# Text: a paragraph or a speaker's turn a line, as it was written.
mkdir -p data/text
for kind in gutenberg wikipedia changelog talkpython bitcoin sgd topicalchat taskmaster; do
    [ -e data/text/$kind.txt.gz ] || python $recipe/fetch_text.py $kind sources/$kind data/text/$kind.txt.gz --without $base
done
for speech in speech more; do
    [ -e data/text/$speech.txt.gz ] || python $recipe/fetch_text.py prompts data/$speech data/text/$speech.txt.gz --without $base
done
transcripts=(data/text/{speech,more}.txt.gz)

# Sentences: whole podcast episodes, talks and books, and the prompts of a Common Voice delta.
mkdir -p data/sentences
[ -e data/sentences/gutenberg.txt ] || gunzip -c data/text/gutenberg.txt.gz \
    | awk 'BEGIN {RS = ""; ORS = "\n\n"} NR % 10 == 1' > data/sentences/gutenberg.txt
[ -e data/sentences/commonvoice.txt.gz ] || python $recipe/fetch_text.py prompts sources/commonvoice13 \
    data/sentences/commonvoice.txt.gz --without $base

# Pronunciations and the n-gram, whose lexicon the acoustic model learns from.
[ -e data/lm/pronunciation.safetensors ] || asr lm --train-pronunciation --out data/lm
[ -e data/lm/ngram.safetensors ] || asr lm --build-tools data/text/*.txt.gz "${transcripts[@]}" "${transcripts[@]}" \
    --vocab 120000 --order 4 --prune "0 2 4 6" --without $base --out data/lm

# The acoustic model, the LSTM over words, then the decoder's weights and confidences.
asr train $recipe/acoustic.toml -o runs/en-small $(resume runs/en-small/last) \
    data.lexicon=data/lm/lexicon.txt data.pronunciation=data/lm/pronunciation.safetensors \
    data.sorted_epochs=1 train.crf_after=0.5 train.updates=15000
cp data/lm/{ngram.safetensors,lexicon.txt,lexicon.safetensors,pronunciation.safetensors} runs/en-small/last/
# The LSTM reads the books, talks and dialogues, and then more of what people say and write today.
[ -e data/neural/neural_lm.safetensors ] || asr lm --neural data/text/{gutenberg,changelog,talkpython,bitcoin,sgd,topicalchat,taskmaster}.txt.gz \
    --vocab data/lm/vocabulary.txt --epochs 0.1 --without $base --out data/neural
part() { [ -e "data/neural/$1.txt" ] || zcat "${@:3}" | awk "NF && ++n % $2 == 3" > "data/neural/$1.txt"; }
part books 38 data/text/gutenberg.txt.gz
part articles 8 data/text/wikipedia.txt.gz
part talks 15 data/text/{changelog,talkpython,bitcoin}.txt.gz
part dialogues 4 data/text/{sgd,topicalchat,taskmaster}.txt.gz
[ -e data/neural/on/neural_lm.safetensors ] || asr lm --neural data/neural/*.txt "${transcripts[@]}" "${transcripts[@]}" \
    --init data/neural/neural_lm.safetensors --epochs 0.55 --without $base --out data/neural/on
[ -e runs/en-small/last/neural_lm.safetensors ] || python $recipe/average.py data/neural/{,on/}neural_lm.safetensors \
    runs/en-small/last/neural_lm.safetensors
# The tagger of sentences, and a wider one that goes on from it. While one is trained its state is there, too.
tagger() {
    [ -e "$1/punctuation.safetensors" ] && [ ! -e "$1/punctuation.state" ] || asr punctuate \
        --train data/text/{changelog,talkpython,bitcoin}.txt.gz data/sentences/*.txt* --out "$@" \
        $(resume "$1/punctuation.state")
}
tagger runs/punctuation --updates 8000
tagger runs/punctuation-wide --updates 9000 --init runs/punctuation --hidden 192
cp runs/punctuation-wide/punctuation.safetensors runs/en-small/last/
asr doctor --renew --checkpoint runs/en-small/last
asr tune $base --checkpoint runs/en-small/last --limit 120
asr evaluate $base --checkpoint runs/en-small/last
