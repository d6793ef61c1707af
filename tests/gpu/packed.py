"""BERT for classification in PyTorch as fast as we could write it: no padding to speak of, shapes that repeat.

Rows are packed in one of two ways. `Bins` lays them end to end in lines of 128 tokens, kept apart by a mask: for any precision.
`Flat` lays all end to end, for FlashAttention's kernels of variable length (bfloat16 on GPUs; elsewhere a mask over all tokens,
which is slow and only to test the rest). Both are filled up to one of few sizes, so that a CUDA graph serves many batches.
"""

import torch
from torch.nn import functional

LINE = 128  # tokens of a bin, and most tokens of a row
NO_LABEL = -100  # of rows that only fill up a batch


def round_up(number, multiple):
    return -(-number // multiple) * multiple


class Bins:
    """How rows become lines of bins."""

    def __init__(self, step):
        self.step = step  # numbers of lines are multiples of it

    def __call__(self, rows, count):
        """The inputs of a batch of (ids, label), labels filled up to count."""
        lines, room = [], []
        for number in sorted(range(len(rows)), key=lambda number: -len(rows[number][0])):
            length = len(rows[number][0])
            line = next((line for line, left in enumerate(room) if left >= length), None)
            if line is None:
                line = len(lines)
                lines.append([])
                room.append(LINE)
            lines[line].append(number)
            room[line] -= length
        ids, positions, owners = torch.zeros(3, round_up(len(lines), self.step), LINE, dtype=torch.long)
        first = torch.zeros(count, dtype=torch.long)
        for number, line in enumerate(lines):
            at = 0
            for owner, row in enumerate(line, 1):
                tokens = torch.tensor(rows[row][0])
                place = (number, slice(at, at + len(tokens)))
                ids[place], positions[place], owners[place] = tokens, torch.arange(len(tokens)), owner
                first[row] = number * LINE + at
                at += len(tokens)
        labels = torch.full((count,), NO_LABEL)
        labels[:len(rows)] = torch.tensor([label for _, label in rows])
        return {"ids": ids, "positions": positions, "owners": owners, "first": first, "labels": labels}


class Flat:
    """How rows become one line; what fills it up are rows of their own, behind the others."""

    def __init__(self, step):
        self.step = step  # numbers of tokens are multiples of it

    def __call__(self, rows, count):
        rows = rows + [([0], NO_LABEL)] * (count - len(rows))
        ends = [0]
        for ids, _ in rows:
            ends.append(ends[-1] + len(ids))
        size = round_up(ends[-1], self.step)
        for _ in range(round_up(self.step, LINE) // LINE):
            ends.append(min(ends[-1] + LINE, size))
        ids = torch.tensor([token for ids, _ in rows for token in ids])
        positions = torch.cat([torch.arange(len(ids)) for ids, _ in rows])
        return {"ids": functional.pad(ids, (0, size - len(ids))), "positions": functional.pad(positions, (0, size - len(ids))),
                "ends": torch.tensor(ends, dtype=torch.int32), "first": torch.tensor(ends[:count]),
                "labels": torch.tensor([label for _, label in rows])}


def varlen_attention(query, key, value, query_ends, key_ends, dropout):
    """Attention within rows of (tokens, heads, depth), which end where the ends say."""
    if query.is_cuda and query.dtype in (torch.bfloat16, torch.float16):
        return torch.ops.aten._flash_attention_forward(  # pylint: disable=protected-access
            query, key, value, query_ends, key_ends, LINE, LINE, dropout, False, False)[0]
    rows = [torch.searchsorted(ends, torch.arange(len(tokens), device=ends.device, dtype=ends.dtype), right=True)
            for ends, tokens in ((query_ends, query), (key_ends, key))]
    heads = [tensor.transpose(0, 1)[None] for tensor in (query, key, value)]
    mixed = functional.scaled_dot_product_attention(*heads, attn_mask=rows[0][:, None] == rows[1][None], dropout_p=dropout)
    return mixed[0].transpose(0, 1)


class PackedBert(torch.nn.Module):
    """The loss of BertForSequenceClassification, with that model's own parameters.

    lean: what bertune saves, too, and exactly: of the last layer only [CLS] is computed.
    """

    def __init__(self, model, lean=False):
        super().__init__()
        config = model.config
        self.model, self.lean = model, lean
        self.heads, self.depth = config.num_attention_heads, config.hidden_size // config.num_attention_heads
        self.hidden_dropout, self.attention_dropout = config.hidden_dropout_prob, config.attention_probs_dropout_prob

    def drop(self, states):
        return functional.dropout(states, self.hidden_dropout, self.training)

    def split(self, states):
        return states.unflatten(-1, (self.heads, self.depth))

    def attend(self, layer, states, batch, asking):
        """Attention of the asking lines among all."""
        query, key, value = (self.split(projection(lines)) for projection, lines in (
            (layer.query, asking), (layer.key, states), (layer.value, states)))
        dropout = self.attention_dropout if self.training else 0.0
        if "owners" in batch:
            same = (batch["owners"][:, :, None] == batch["owners"][:, None, :])[:, None]
            mixed = functional.scaled_dot_product_attention(
                *(tensor.transpose(1, 2) for tensor in (query, key, value)), attn_mask=same, dropout_p=dropout)
            return mixed.transpose(1, 2).flatten(-2)
        ends = batch["ends"]
        query_ends, key_ends = ends, ends
        if asking is not states:
            count = len(batch["first"])
            query_ends, key_ends = torch.arange(count + 1, device=ends.device, dtype=ends.dtype), ends[:count + 1]
        return varlen_attention(query, key, value, query_ends, key_ends, dropout).flatten(-2)

    def forward(self, **batch):
        bert = self.model.bert
        tables = bert.embeddings
        states = (tables.word_embeddings(batch["ids"]) + tables.position_embeddings(batch["positions"])
                  + tables.token_type_embeddings.weight[0])
        states = self.drop(tables.LayerNorm(states))
        for number, layer in enumerate(bert.encoder.layer):
            asking = states
            if self.lean and number == len(bert.encoder.layer) - 1:
                asking = states[batch["first"]]
            mixed = self.attend(layer.attention.self, states, batch, asking)
            states = layer.attention.output.LayerNorm(self.drop(layer.attention.output.dense(mixed)) + asking)
            wide = functional.gelu(layer.intermediate.dense(states))
            states = layer.output.LayerNorm(self.drop(layer.output.dense(wide)) + states)
        if not self.lean:
            states = states.reshape(-1, states.shape[-1])[batch["first"]]
        pooled = torch.tanh(bert.pooler.dense(states))
        logits = self.model.classifier(self.drop(pooled))
        return functional.cross_entropy(logits.float(), batch["labels"], ignore_index=NO_LABEL)


def keep_vocabulary(model, active):
    """Leaves the model with the given rows of its word table alone; its gradients are the same."""
    weight = model.bert.embeddings.word_embeddings.weight.detach()[active].clone()
    padding = model.config.pad_token_id
    place = active.index(padding) if padding in active else None
    model.bert.embeddings.word_embeddings = torch.nn.Embedding.from_pretrained(weight, freeze=False, padding_idx=place)
    return model
