import numpy as np
import pytest
import torch
from scipy import sparse

from sparse_bench.batch import SparseRows
from sparse_bench.data.featurizers import Features
from sparse_bench.data.messages import Entity, Message
from sparse_bench.data.tokenizer import tokenize
from sparse_bench.tasks.intent_data import MessageArrays


def dense(rows: SparseRows, width: int) -> torch.Tensor:
    """What an embedding bag with an identity table would give."""
    table = torch.eye(width)
    return torch.nn.functional.embedding_bag(
        rows.indices, table, rows.offsets, mode="sum", per_sample_weights=rows.values
    )


class TestArrays:
    texts = ("one", "two words", "New York now")
    messages = (
        Message("one", "b"),
        Message("two words", "a/x"),
        Message("New York now", "b", (Entity(0, 8, "city", "New York"),)),
    )
    #: Row r of the tokens holds r + 1 in column r, and 10 in column 6 but for row 4; row 3 is empty.
    tokens = np.array(
        [
            [1, 0, 0, 0, 0, 0, 10],
            [0, 2, 0, 0, 0, 0, 10],
            [0, 0, 3, 0, 0, 0, 10],
            [0, 0, 0, 0, 0, 0, 0],
            [0, 0, 0, 0, 5, 0, 0],
            [0, 0, 0, 0, 0, 6, 10],
        ],
        dtype=np.float32,
    )
    sentences = np.array([[1, 0], [0, 0], [2, 3]], dtype=np.float32)

    @pytest.fixture
    def arrays(self):
        features = Features(sparse.csr_array(self.tokens), sparse.csr_array(self.sentences))
        texts = [tokenize(text) for text in self.texts]
        return MessageArrays(texts, features, self.messages, {"a": 0, "b": 1}, {"city": 0})

    def test_a_batch_by_hand(self, arrays):
        batch = arrays.batch(np.array([2, 0, 1]))
        assert torch.equal(dense(batch.tokens, 7), torch.from_numpy(self.tokens[[3, 4, 5, 0, 1, 2]]))
        assert torch.equal(dense(batch.sentences, 2), torch.from_numpy(self.sentences[[2, 0, 1]]))
        assert batch.tokens.rows == 6
        assert batch.tokens.offsets.tolist() == [0, 0, 1, 3, 5, 7]
        assert batch.intents.tolist() == [1, 1, 0]
        assert batch.tags.tolist() == [1, 3, 0, 0, 0, 0]
        # The CLS of a message stands behind its tokens.
        assert batch.layout.lengths.tolist() == [4, 2, 3]
        assert batch.token_rows.tolist() == [0, 1, 2, 4, 6, 7]
        assert batch.sentence_rows.tolist() == [3, 5, 8]
        assert batch.layout.position[batch.sentence_rows].tolist() == [3, 1, 2]
        assert batch.token_layout.lengths.tolist() == [3, 1, 2]

    def test_types(self, arrays):
        batch = arrays.batch(np.array([0, 2]))
        for rows in (batch.tokens, batch.sentences):
            assert (rows.indices.dtype, rows.offsets.dtype, rows.values.dtype) == (
                torch.int64,
                torch.int64,
                torch.float32,
            )
        for tensor in (batch.token_rows, batch.sentence_rows, batch.intents, batch.tags):
            assert tensor.dtype == torch.int64

    def test_a_message_may_come_twice(self, arrays):
        batch = arrays.batch(np.array([1, 1]))
        assert torch.equal(dense(batch.tokens, 7), torch.from_numpy(self.tokens[[1, 2, 1, 2]]))

    def test_packed_rows_are_the_padded_ones(self, arrays):
        batch = arrays.batch(np.array([2, 0, 1]))
        packed = torch.zeros(9, 9)
        packed[batch.token_rows, :7] = dense(batch.tokens, 7)
        packed[batch.sentence_rows, 7:] = dense(batch.sentences, 2)
        padded = packed[batch.layout.grid] * batch.layout.mask[..., None]
        for row, message in enumerate((2, 0, 1)):
            first = [0, 1, 3][message]
            count = len(self.texts[message].split())
            expected = np.zeros((4, 9), dtype=np.float32)
            expected[:count, :7] = self.tokens[first : first + count]
            expected[count, 7:] = self.sentences[message]
            assert padded[row].tolist() == expected.tolist()
        assert torch.equal(padded.flatten(0, 1)[batch.layout.cell], packed)

    def test_without_entity_types_nothing_is_tagged(self):
        features = Features(sparse.csr_array(self.tokens), sparse.csr_array(self.sentences))
        texts = [tokenize(text) for text in self.texts]
        assert not MessageArrays(texts, features, self.messages, {"a": 0, "b": 1}, {}).tags.any()
