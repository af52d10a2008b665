"""The compiled half of the search: n-gram look-ups, one frame after another of the beam search, and its best paths.

`asr.decoding.compiling` compiles it, once for a processor, and alone imports it; `asr.decoding.search` is the half that
callers see; docs/architecture/search.md explains both. `ENTRIES` are what Python calls, by tables of arrays (`layout`).

Scores of the search are natural logarithms, those of language models log10. Nothing here allocates memory, raises or
calls Python, and so nothing holds Python's lock. Small functions are inlined, and take arrays instead of tuples of
them: to hand over a tuple costs more than they do.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import carray, cfunc, njit, types
from numba.extending import intrinsic

from asr.decoding import layout
from asr.decoding.layout import CACHE_BITS, HISTORY_BITS, LEVELS, ROOT, SAMPLED

LOWEST = np.float32(-1e30)
LIKELIER = np.float32(
    1.0
)  # log10: how much likelier than on its own a word may be in its context, to be worth a look-up
HASH = np.uint64(0x9E3779B97F4A7C15)

_ONE, _ZERO = np.uint64(1), np.uint64(0)

inlined = njit(inline="always", error_model="numpy")
merged = njit(forceinline=True, error_model="numpy")  # by LLVM, which optimizes it with its caller
called = njit(error_model="numpy")


# --- the n-gram trie


@inlined
def _ones(x):
    """How many bits of 64 are set."""
    x = x - ((x >> np.uint64(1)) & np.uint64(0x5555555555555555))
    x = (x & np.uint64(0x3333333333333333)) + ((x >> np.uint64(2)) & np.uint64(0x3333333333333333))
    x = (x + (x >> np.uint64(4))) & np.uint64(0x0F0F0F0F0F0F0F0F)
    return np.int64((x * np.uint64(0x0101010101010101)) >> np.uint64(56))


@inlined
def _select(shape, places, k, flip):
    """The place of the k-th (from 0) set bit of the trie's shape; with `flip` of all ones, of the k-th clear one.
    `places` are those of every 64th."""
    place = np.int64(places[min(max(k // SAMPLED, 0), len(places) - 1)])
    k %= SAMPLED
    i = min(place >> 6, len(shape) - 1)
    x = (shape[i] ^ flip) >> np.uint64(place & 63) << np.uint64(place & 63)
    inside = _ones(x)
    while k >= inside and i < len(shape) - 1:
        k -= inside
        i += 1
        x = shape[i] ^ flip
        inside = _ones(x)
    while k > 0 and x:
        x &= x - _ONE  # without its lowest bit
        k -= 1
    return 64 * i + _ones((x & (~x + _ONE)) - _ONE)  # the bits below its lowest bit


@inlined
def _word(words, i, width):
    """The i-th of bit-packed words."""
    bit = i * width
    shift = np.uint64(bit & 63)
    x = words[bit >> 6] >> shift
    if (bit & 63) + width > 64:
        x |= words[(bit >> 6) + 1] << (np.uint64(64) - shift)
    return np.int64(x & ((_ONE << np.uint64(width)) - _ONE))


@called
def bits_of(size):
    """How many bits a number below `size` takes."""
    width = 1
    while size > 1 << width:
        width += 1
    return width


@called
def history(ngram, width, state, context, back_off, at):
    """The context of a state: its words, the newest first, to context[at:], and the back-off weights of the newest, the
    two newest, …, to back_off[at:]. Returns how many they are. A state is the trie's node of the longest context that
    any n-gram goes on from; what a damaged trie points to stays inside."""
    base, unigrams, back_offs, back_off_table = ngram.base, ngram.unigrams, ngram.back_offs, ngram.back_off_table
    words, first, shape, ones = ngram.words, ngram.first, ngram.shape, ngram.ones
    order, pairs = len(base) - 1, base[1]  # node `pairs` is the first of order 2
    length = 0
    while length < order - 1 and state >= base[length]:
        length += 1
    node = np.int64(state)
    for n in range(length - 1, -1, -1):  # up to the root: from the oldest word of the context to the newest
        if n == 0:
            context[at] = min(max(node - 1, 0), len(unigrams) - 1)
            back_off[at] = unigrams[context[at], 1]
            continue
        node = min(max(node, pairs), base[order - 1] - 1)
        context[at + n] = _word(words, node - pairs, width)
        back_off[at + n] = back_off_table[n - 1, back_offs[node - pairs]]
        if n > 1:
            k = node - base[2]
            node = pairs + _select(shape, ones, k, _ZERO) - k
        else:  # the last word whose children begin at or before it
            low, high = np.int64(1), pairs - 1
            while low < high:
                middle = (low + high + 1) >> 1
                if first[middle] <= node:
                    low = middle
                else:
                    high = middle - 1
            node = low
    return length


@called
def score_after(ngram, width, word, length, context, back_off, at):
    """log10 P(word | context), and the state after it; the context as `history` gives it."""
    base, unigrams, probabilities, back_offs = ngram.base, ngram.unigrams, ngram.probabilities, ngram.back_offs
    probability_table, words, first, shape, zeros = (
        ngram.probability_table,
        ngram.words,
        ngram.first,
        ngram.shape,
        ngram.zeros,
    )
    order, pairs = len(base) - 1, base[1]
    total, matched = unigrams[word, 0], 0
    node = np.int64(word) + 1
    after = node if order > 1 else np.int64(ROOT)
    for n in range(length):  # and down again from the word: from the newest word of its context to the oldest
        if n == 0:
            low, end = np.int64(first[node]), np.int64(first[node + 1])
        else:
            k = node - pairs  # its ones lie behind the zero of the node before
            start = np.int64(0)
            if k:
                start = _select(shape, zeros, k - 1, ~_ZERO) + 1
            i = min(start >> 6, len(shape) - 1)
            stop = start
            x = (~shape[i]) >> np.uint64(start & 63)
            while not x and i < len(shape) - 1:
                i += 1
                stop = np.int64(64 * i)
                x = ~shape[i]
            stop += _ones((x & (~x + _ONE)) - _ONE)
            low, end = base[2] + start - k, base[2] + stop - k
        low, end = max(pairs, low), min(end, base[order])
        high, wanted = end, context[at + n]
        while low < high:
            middle = (low + high) >> 1
            if _word(words, middle - pairs, width) < wanted:
                low = middle + 1
            else:
                high = middle
        if low >= end or _word(words, low - pairs, width) != wanted:
            break
        node, matched = low, n + 1
        total = probability_table[n, probabilities[node - pairs]]
        if node < base[order - 1] and back_offs[node - pairs]:  # 0: no n-gram goes on from it
            after = node
    for n in range(matched, length):
        total += back_off[at + n]
    return total, after


@called
def score(ngram, width, state, word, context, back_off):
    """log10 P(word | state), and the state after it. `context` and `back_off` are room for N numbers each."""
    length = history(ngram, width, state, context, back_off, 0)
    return score_after(ngram, width, word, length, context, back_off, 0)


@called
def score_sentence(ngram, state, words, end, context, back_off, scores):
    """log10 probabilities of words (n,) after `state`, each after those before it, and of the end: scores (n + 1,)."""
    width = bits_of(len(ngram.unigrams))
    for i in range(len(words) + 1):
        word = np.int64(words[i]) if i < len(words) else end
        scores[i], state = score(ngram, width, np.int64(state), word, context, back_off)


# --- the search


@inlined
def _step(first, words, target, fallback, state, word):
    """The automaton's state after a word."""
    while True:
        low, end = first[state], first[state + 1]
        high = end
        while low < high:
            middle = (low + high) >> 1
            if words[middle] < word:
                low = middle + 1
            else:
                high = middle
        if low < end and words[low] == word:
            state = target[low]
            break
        if state == ROOT:
            break
        state = fallback[state]
    return state


@called
def follow(phrases, state, word):
    """The automaton's state after a word, and the bonus (log10) that the word earns; negative: what is paid back."""
    after = _step(phrases.first, phrases.word, phrases.target, phrases.fallback, state, word)
    return after, phrases.earned[after] + phrases.lent[after] - phrases.lent[state]


@called
def _kth_largest(values, n, k):
    """Of values[:n], which it reorders (Hoare's selection)."""
    low, high = 0, n - 1
    while low < high:
        pivot, i, j = values[(low + high) >> 1], low, high
        while i <= j:
            while values[i] > pivot:
                i += 1
            while values[j] < pivot:
                j -= 1
            if i <= j:
                values[i], values[j] = values[j], values[i]
                i += 1
                j -= 1
        if k - 1 <= j:
            high = j
        elif k - 1 >= i:
            low = i
        else:
            break
    return values[k - 1]


@called
def _remember(candidates, rivals, count, j, score, source, label, past):
    """A path that candidate j has overtaken, unless a better one of the same words is remembered."""
    i = candidates[j].rival
    while i >= 0:
        if rivals[i].past == past:
            if score > rivals[i].score:
                rivals[i].score, rivals[i].source, rivals[i].label = score, source, label
            return count
        i = rivals[i].next
    if count < len(rivals):
        rivals[count].score, rivals[count].source, rivals[count].label = score, source, label
        rivals[count].past, rivals[count].next = past, candidates[j].rival
        candidates[j].rival = count
        count += 1
    return count


@merged
def _level(score, lowest, step):
    """The row of the histogram of scores that a score counts in."""
    return np.int64(min(max((score - lowest) / step, np.float32(0.0)), np.float32(LEVELS - 1)))


@merged
def _offer(space, frame, cut):
    """One more candidate, which stands behind those that were made; of those that agree in node, state, phrase and
    blank the best stays. Returns the score that a candidate needs from now on.

    `made` counts candidates and rivals; `levels` are rows of a histogram of the candidates' scores, from `lowest` in
    steps, then the row below which none is among the best `beam` any more, then how many are not below it.
    """
    candidates, rivals, table, made, levels = space
    generation, beam, margin, threshold, lowest, step = frame
    new = candidates[made[0]]
    score, node, state, phrase, blank = new.score, new.node, new.state, new.phrase, new.blank
    key = (
        np.uint64(node) * HASH
        ^ np.uint64(state) * np.uint64(0xC2B2AE3D27D4EB4F)
        ^ np.uint64(2 * phrase + blank) * np.uint64(0x165667B19E3779F9)
    )
    cell = np.int64((key ^ (key >> np.uint64(29))) * HASH >> np.uint64(33)) & (len(table) - 1)
    while table[cell, 0] == generation:
        c = candidates[table[cell, 1]]
        if c.node == node and c.state == state and c.phrase == phrase and c.blank == blank:
            break
        cell = (cell + 1) & (len(table) - 1)
    level = _level(score, lowest, step)
    if table[cell, 0] != generation:
        if made[0] == len(candidates) - 1:
            return cut
        table[cell, 0], table[cell, 1] = generation, made[0]
        new.rival = -1
        made[0] += 1
        levels[level] += 1
        levels[LEVELS + 1] += level >= levels[LEVELS]
    else:
        j = table[cell, 1]
        c = candidates[j]
        if score > c.score:
            if c.past != new.past and c.score > score - margin:
                made[1] = _remember(candidates, rivals, made[1], j, c.score, c.source, c.label, c.past)
            before = _level(c.score, lowest, step)
            levels[before] -= 1
            levels[level] += 1
            levels[LEVELS + 1] += before < levels[LEVELS] <= level
            c.score, c.source, c.label, c.token, c.past = score, new.source, new.label, new.token, new.past
        elif c.past != new.past and score > c.score - margin:
            made[1] = _remember(candidates, rivals, made[1], j, score, new.source, new.label, new.past)
    while levels[LEVELS + 1] - levels[levels[LEVELS]] >= beam:
        levels[LEVELS + 1] -= levels[levels[LEVELS]]
        levels[LEVELS] += 1
    if levels[LEVELS]:  # the first row has no lower edge
        cut = max(cut, lowest + np.float32(levels[LEVELS]) * step)
    return max(cut, score - threshold)


@called
def advance(emissions, begin, tree, hot, ngram, numbers, phrases, o, beam, arena, alive, offset, room):
    """Search on through emissions (F, V), natural log, from frame `begin`, until all are heard or the arena is full.
    Returns the frame to go on from.

    `hot` is a second tree over hot words, whose root is `tree`'s root; `numbers` turns word numbers to the n-gram's.
    Hypotheses come the best first, within a step of the histogram.
    """
    candidates, rivals, table, made, levels, survivors, work = room[:7]
    cached_key, cached_state, cached_score, known, length, context, back_off = room[7:]
    space = (candidates, rivals, table, made, levels)
    width, size, order = bits_of(len(ngram.unigrams)), len(tree.token), len(ngram.base)
    unigrams = ngram.unigrams
    for i in range(len(table)):
        table[i, 0] = 0
    for i in range(len(cached_key)):
        cached_key[i] = -1
    for i in range(len(known)):
        known[i] = -1
    token_, ahead_, first_, ends_, labels_ = tree
    h_token, h_ahead, h_first, h_ends, h_labels = hot
    p_first, p_word, p_target, p_fallback, p_earned, p_lent = phrases
    weight, margin, word_score = np.float32(o.lm_weight), np.float32(o.margin), np.float32(o.word_score)
    threshold, blank, boundary = np.float32(o.threshold), o.blank, o.boundary
    step = max(2 * threshold, np.float32(1.0)) / np.float32(LEVELS)  # any would do, for any threshold
    at_root = LOWEST  # log10: the most that a first phoneme may hope for
    for child in range(first_[ROOT], first_[ROOT + 1]):
        at_root = max(at_root, ahead_[child])
    for child in range(h_first[ROOT], h_first[ROOT + 1]):
        at_root = max(at_root, h_ahead[child])
    most, least_lent = LOWEST, -LOWEST
    for i in range(len(p_lent)):
        most, least_lent = max(most, p_earned[i] + p_lent[i]), min(least_lent, p_lent[i])
    at_end = most - least_lent  # log10: the most that a phrase may pay for a word
    for t in range(begin, len(emissions)):
        if alive[1] + 2 * o.beam > len(arena):
            return t
        e = emissions[t]
        generation = t - begin + 1
        loudest = LOWEST  # of the tokens that lead to a child
        for token in range(len(e)):
            work[token] = e[token]
            if token != blank and token != boundary:
                loudest = max(loudest, e[token])
        least = _kth_largest(work, len(e), min(o.tokens, len(e)))
        made[0] = made[1] = 0
        for i in range(len(levels)):
            levels[i] = 0
        lowest = max(loudest, e[blank], e[boundary]) - threshold
        frame = (generation, o.beam, margin, threshold, lowest, step)
        cut = e[blank] - threshold  # the best, whose score is 0, goes on at least with a blank
        for h in range(alive[0]):
            before = beam[h].score
            node, state, phrase = beam[h].node, beam[h].state, beam[h].phrase
            after_blank, past = beam[h].blank, beam[h].past
            inside = node >= size  # of the tree of hot words
            n = node - size if inside else node
            own = boundary  # what goes on without a blank: the token; at the root the boundary, at any time
            if node != ROOT:
                own = np.int64(h_token[n] if inside else token_[n])
            for move in range(2):
                token = own if move else blank
                if move and after_blank and node != ROOT:
                    continue
                s = before + e[token]
                if s >= cut:
                    c = candidates[made[0]]
                    c.score, c.node, c.state, c.phrase, c.blank = s, node, state, phrase, 1 - move
                    c.source, c.label, c.token, c.past = h, -1, token, past
                    cut = _offer(space, frame, cut)
            for part in range(2):
                if node != ROOT and part != inside:
                    continue
                if before + loudest + (weight * at_root if node == ROOT else np.float32(0.0)) < cut:
                    continue
                low, high = (h_first[n], h_first[n + 1]) if part else (first_[n], first_[n + 1])
                ahead = h_ahead[n] if part else ahead_[n]
                for child in range(low, high):
                    token = np.int64(h_token[child] if part else token_[child])
                    if e[token] < least or (token == own and not after_blank and node != ROOT):
                        continue
                    s = before + e[token] + weight * ((h_ahead[child] if part else ahead_[child]) - ahead)
                    if s >= cut:
                        c = candidates[made[0]]
                        c.score, c.node, c.state, c.phrase, c.blank = (
                            s,
                            child + size if part else child,
                            state,
                            phrase,
                            0,
                        )
                        c.source, c.label, c.token, c.past = h, -1, token, past
                        cut = _offer(space, frame, cut)
        for h in range(alive[0] if e[boundary] >= least else 0):  # last, when little is still worth a look-up
            node, state, phrase = beam[h].node, beam[h].state, beam[h].phrase
            if node == ROOT:
                continue
            past, reached = beam[h].past, beam[h].score + e[boundary] + word_score
            if reached + weight * (LIKELIER + at_end) < cut:  # the look-ahead promised as much as any word's own score
                continue
            part = node >= size
            n = node - size if part else node
            reached -= weight * (h_ahead[n] if part else ahead_[n])
            low, high = (h_ends[n], h_ends[n + 1]) if part else (ends_[n], ends_[n + 1])
            for i in range(low, high):  # words end here: all that sound so
                label = h_labels[i] if part else labels_[i]
                word = np.int64(numbers[label]) if label < len(numbers) else np.int64(o.unknown)
                following = _step(p_first, p_word, p_target, p_fallback, phrase, label)
                bonus = p_earned[following] + p_lent[following] - p_lent[phrase]
                least_p = np.float32(o.floor) if label >= len(numbers) else LOWEST
                if reached + weight * (max(unigrams[word, 0] + LIKELIER, least_p) + bonus) < cut:
                    continue
                key = np.int64(state) << 32 | word
                cell = np.int64((np.uint64(key) * HASH) >> np.uint64(64 - CACHE_BITS))
                if cached_key[cell] != key:
                    row = np.int64((np.uint64(state) * HASH) >> np.uint64(64 - HISTORY_BITS))
                    if known[row] != state:
                        known[row] = state
                        length[row] = history(ngram, width, np.int64(state), context, back_off, row * order)
                    cached_key[cell] = key
                    cached_score[cell], cached_state[cell] = score_after(
                        ngram, width, word, np.int64(length[row]), context, back_off, row * order
                    )
                p = max(cached_score[cell], least_p) + bonus
                s = reached + weight * p
                if s >= cut:
                    mixed = (past ^ np.uint64(label + 1)) * HASH
                    c = candidates[made[0]]
                    c.score, c.node, c.state, c.phrase, c.blank = s, ROOT, cached_state[cell], following, 0
                    c.source, c.label, c.token, c.past = h, label, boundary, mixed ^ (mixed >> np.uint64(31))
                    cut = _offer(space, frame, cut)
        best, within = LOWEST, 0
        for j in range(made[0]):
            c = candidates[j]
            best = max(best, c.score)
            if c.score >= cut:
                work[within] = c.score
                within += 1
        if within > o.beam:
            cut = _kth_largest(work, within, o.beam)
        place = 0  # of the first hypothesis of each row of the histogram
        for level in range(LEVELS - 1, -1, -1):
            place, levels[level] = place + levels[level], place
        count, end = 0, alive[1]
        for j in range(made[0]):
            c = candidates[j]
            level = _level(c.score, lowest, step)
            if c.score < cut or levels[level] == o.beam:  # the latter: as good as the last of the beam
                continue
            other, i = 0, c.rival
            while i >= 0:
                if rivals[i].score > c.score - margin and rivals[i].past != c.past:
                    a = arena[end]
                    a.before, a.other, a.label, a.token = beam[rivals[i].source].entry, other, rivals[i].label, c.token
                    a.loss = c.score - rivals[i].score
                    other = end
                    end += 1
                i = rivals[i].next
            a, s = arena[end], survivors[levels[level]]
            levels[level] += 1
            a.before, a.other, a.label, a.token, a.loss = beam[c.source].entry, other, c.label, c.token, 0
            s.score, s.node, s.state, s.phrase, s.entry = c.score - best, c.node, c.state, c.phrase, end
            s.blank, s.past = c.blank, c.past
            end += 1
            count += 1
        for h in range(count):
            beam[h] = survivors[h]
        alive[0], alive[1] = count, end
        offset[0] += best
    return len(emissions)


@called
def compact(beam, arena, alive, index):
    """Leave only those entries of the arena from which a hypothesis comes, in their order."""
    end = alive[1]
    for i in range(end):
        index[i] = 0
    for h in range(alive[0]):
        index[beam[h].entry] = 1
    for i in range(end - 1, 0, -1):  # what an entry points to lies before it
        if index[i]:
            index[arena[i].before] = index[arena[i].other] = 1
    index[0] = 0
    count = 1
    for i in range(1, end):
        if index[i]:
            index[i] = count
            arena[count] = arena[i]
            arena[count].before, arena[count].other = index[arena[i].before], index[arena[i].other]
            count += 1
    alive[1] = count
    for h in range(alive[0]):
        beam[h].entry = index[beam[h].entry]


@called
def best_paths(frames, most, ngram, phrases, o, beam, arena, alive, offset, paths):
    """The `most` best sentences of different words whose last word is complete (any, where there is none), best first:
    how many they are; `paths` has their scores and rows, and of each row the label of each frame, -1 where no word
    ends, and the token."""
    scores, found, labels, tokens, past, total, entry, parent, frame, context, back_off = paths
    width, count = bits_of(len(ngram.unigrams)), alive[0]
    reads, room = len(labels), len(total)
    waiting = 0
    for complete in (True, False):
        if waiting:
            break
        for h in range(count):
            if complete and beam[h].node != ROOT:
                continue
            end = score(ngram, width, np.int64(beam[h].state), np.int64(o.end), context, back_off)[0]
            total[waiting] = beam[h].score + o.lm_weight * (end - phrases.lent[beam[h].phrase])
            entry[waiting], parent[waiting], frame[waiting] = beam[h].entry, -1, frames - 1
            waiting += 1
    n, least = 0, LOWEST
    for read in range(reads):
        if n == most or not waiting:
            break
        top = 0
        for i in range(1, waiting):
            if total[i] > total[top]:
                top = i
        s, at, origin, t = total[top], entry[top], parent[top], frame[top]
        waiting -= 1
        total[top], entry[top] = total[waiting], entry[waiting]
        parent[top], frame[top] = parent[waiting], frame[waiting]
        if s < least:
            break
        least = max(least, s - np.float32(o.margin))
        overtaken = origin >= 0  # up to the end it is as the path that went on
        if overtaken:
            for i in range(t + 1, frames):
                labels[read, i], tokens[read, i] = labels[origin, i], tokens[origin, i]
        while t >= 0:
            labels[read, t], tokens[read, t] = arena[at].label, arena[at].token
            other = 0 if overtaken else arena[at].other  # those of its own list wait already
            overtaken = False
            while other and most > 1:
                if waiting < room and s - arena[other].loss >= least:
                    total[waiting], entry[waiting] = s - arena[other].loss, other
                    parent[waiting], frame[waiting] = read, t
                    waiting += 1
                other = arena[other].other
            at = arena[at].before
            t -= 1
        for t in range(frames):
            if labels[read, t] >= 0:
                past[read] = (past[read] ^ np.uint64(labels[read, t] + 1)) * HASH
                past[read] ^= past[read] >> np.uint64(31)
        new = True
        for i in range(n):
            new = new and past[found[i]] != past[read]
        if new:
            found[n], scores[n] = read, s + offset[0]
            n += 1
    return n


# --- what Python calls


@intrinsic
def _pointer(typingctx, address, dtype):
    """A number as the address of values of a type."""
    kind = types.CPointer(dtype.dtype)

    def generate(context, builder, signature, arguments):
        return builder.inttoptr(arguments[0], context.get_value_type(kind))

    return kind(types.int64, dtype), generate


@merged
def _row(table, i, dtype):
    """The i-th array of a table, of one dimension."""
    return carray(_pointer(table[3 * i], dtype), table[3 * i + 1])


@merged
def _rows(table, i, dtype):
    """The i-th array of a table, of two dimensions."""
    return carray(_pointer(table[3 * i], dtype), (table[3 * i + 1], table[3 * i + 2]))


def _taking(kind: type) -> Any:
    """A compiled function: the table of one of `layout`'s tuples → the tuple."""
    types = layout.TYPES[kind]
    arrays = ", ".join(
        f"{'_row' if dimensions == 1 else '_rows'}(table, {i}, type_{i})" for i, (_, dimensions) in enumerate(types)
    )
    scope: dict[str, Any] = {"kind": kind, "_row": _row, "_rows": _rows}
    scope |= {f"type_{i}": dtype.type if dtype.names is None else dtype for i, (dtype, _) in enumerate(types)}
    exec(f"def take(table):\n    return kind({arrays})", scope)  # numba compiles no loop over arrays of several types
    return merged(scope["take"])


_tree, _ngram, _phrases = _taking(layout.Tree), _taking(layout.NGram), _taking(layout.Phrases)
_state, _room, _paths = _taking(layout.State), _taking(layout.Room), _taking(layout.Paths)
_emissions, _numbers, _index = _taking(layout.Emissions), _taking(layout.Numbers), _taking(layout.Index)
_sentence, _bonus = _taking(layout.Sentence), _taking(layout.Bonus)

ENTRIES: dict[str, Any] = {}  # by the names of `layout.SIGNATURES`


def _entry(function: Any) -> None:
    tables, numbers = layout.SIGNATURES[function.__name__.lstrip("_")]
    signature = types.int64(*[types.CPointer(types.int64)] * tables, *[types.int64] * numbers)
    ENTRIES[function.__name__.lstrip("_")] = cfunc(signature, error_model="numpy")(function)


@_entry
def _advance(emissions, tree, hot, ngram, numbers, phrases, state, room, begin):
    s = _state(state)
    return advance(
        _emissions(emissions).scores,
        begin,
        _tree(tree),
        _tree(hot),
        _ngram(ngram),
        _numbers(numbers).numbers,
        _phrases(phrases),
        s.options[0],
        s.beam,
        s.arena,
        s.alive,
        s.offset,
        _room(room),
    )


@_entry
def _compact(state, index):
    s = _state(state)
    compact(s.beam, s.arena, s.alive, _index(index).entries)
    return 0


@_entry
def _best_paths(ngram, phrases, state, paths, frames, most):
    s = _state(state)
    return best_paths(
        frames, most, _ngram(ngram), _phrases(phrases), s.options[0], s.beam, s.arena, s.alive, s.offset, _paths(paths)
    )


@_entry
def _score_sentence(ngram, sentence, state, end):
    s = _sentence(sentence)
    score_sentence(_ngram(ngram), state, s.words, end, s.context, s.back_off, s.scores)
    return 0


@_entry
def _follow(phrases, bonus, state, word):
    after, earned = follow(_phrases(phrases), state, word)
    _bonus(bonus).earned[0] = earned
    return after
