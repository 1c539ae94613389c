//! `OpenAI`'s Embeddings: a unit vector for each input, the same for the same input.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::tokens;

/// The default number of a vector's dimensions.
const DIMENSIONS: u64 = 16;
const DIMENSIONS_MAX: u64 = 4096;
const INPUTS_MAX: usize = 2048;

/// The answer, or the request's mistake.
pub(super) fn whole(model: &str, request: &Value) -> Result<Value, &'static str> {
    let inputs = inputs(&request["input"])?;
    let dimensions = request["dimensions"].as_u64().unwrap_or(DIMENSIONS);
    if !(1..=DIMENSIONS_MAX).contains(&dimensions) {
        return Err("'dimensions' must be from 1 to 4096");
    }
    let in_base64 = match request["encoding_format"].as_str() {
        None | Some("float") => false,
        Some("base64") => true,
        Some(_) => return Err("'encoding_format' must be float or base64"),
    };
    let embedding = |input: &Value| {
        let vector = vector(input, dimensions);
        if in_base64 {
            let bytes: Vec<u8> = vector.iter().flat_map(|number| number.to_le_bytes()).collect();
            json!(STANDARD.encode(bytes))
        } else {
            json!(vector)
        }
    };
    let data: Vec<_> = inputs
        .iter()
        .enumerate()
        .map(|(index, input)| json!({"object": "embedding", "index": index, "embedding": embedding(input)}))
        .collect();
    let count: usize = inputs.iter().map(count).sum();
    let usage = json!({"prompt_tokens": count, "total_tokens": count});
    Ok(json!({"object": "list", "model": model, "data": data, "usage": usage}))
}

/// The inputs of a request: a text, a list of texts, a list of tokens, or a list of lists of tokens.
fn inputs(input: &Value) -> Result<Vec<Value>, &'static str> {
    let all = match input {
        Value::String(_) => vec![input.clone()],
        Value::Array(list) if !list.is_empty() && list.iter().all(Value::is_u64) => {
            vec![input.clone()]
        }
        Value::Array(list) => list.clone(),
        _ => return Err("'input' must be a text, a list of texts, or tokens"),
    };
    let is_one = |one: &Value| match one {
        Value::String(text) => !text.is_empty(),
        Value::Array(tokens) => !tokens.is_empty() && tokens.iter().all(Value::is_u64),
        _ => false,
    };
    if all.is_empty() || all.len() > INPUTS_MAX || !all.iter().all(is_one) {
        return Err("'input' must hold from 1 to 2048 inputs, none of them empty");
    }
    Ok(all)
}

fn count(input: &Value) -> usize {
    input.as_array().map_or_else(|| tokens(input), Vec::len)
}

fn vector(input: &Value, dimensions: u64) -> Vec<f32> {
    let text = input.to_string();
    // FNV-1a (offset basis and prime of 64 bits), as a seed.
    let seed = text.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    let mut random = fastrand::Rng::with_seed(seed);
    let mut vector: Vec<f32> = (0..dimensions).map(|_| random.f32() - 0.5).collect();
    let length = vector.iter().map(|number| number * number).sum::<f32>().sqrt();
    for number in &mut vector {
        *number /= length;
    }
    vector
}

#[cfg(test)]
mod tests {
    use super::*;

    fn embeddings(request: &Value) -> Vec<Value> {
        let answer = whole("m", request).unwrap();
        let data = answer["data"].as_array().unwrap().clone();
        for (index, one) in data.iter().enumerate() {
            assert_eq!(one["index"], index);
        }
        data.into_iter().map(|one| one["embedding"].clone()).collect()
    }

    #[test]
    fn each_input_has_a_vector_of_its_own() {
        for (input, count) in [
            (json!("a"), 1),
            (json!(["a"]), 1),
            (json!(["a", "b", "a"]), 3),
            (json!([1, 2, 3]), 1),
            (json!([[1, 2], [3]]), 2),
        ] {
            assert_eq!(embeddings(&json!({ "input": input })).len(), count, "{input}");
        }
        let three = embeddings(&json!({"input": ["a", "b", "a"]}));
        assert!(three[0] == three[2] && three[0] != three[1]);
        for wrong in [
            json!(null),
            json!(""),
            json!([]),
            json!([""]),
            json!([[]]),
            json!(["a", 1]),
            json!({}),
        ] {
            assert!(whole("m", &json!({ "input": wrong })).is_err(), "{wrong}");
        }
    }

    #[test]
    fn base64_holds_the_same_numbers() {
        let floats = &embeddings(&json!({"input": "a", "dimensions": 3}))[0];
        let coded =
            &embeddings(&json!({"input": "a", "dimensions": 3, "encoding_format": "base64"}))[0];
        let bytes = STANDARD.decode(coded.as_str().unwrap()).unwrap();
        let numbers: Vec<f32> =
            bytes.chunks(4).map(|four| f32::from_le_bytes(four.try_into().unwrap())).collect();
        assert_eq!(&json!(numbers), floats);
        for (name, value) in
            [("dimensions", json!(0)), ("dimensions", json!(4097)), ("encoding_format", json!("x"))]
        {
            let mut request = json!({"input": "a"});
            request[name] = value;
            assert!(whole("m", &request).is_err(), "{request}");
        }
    }
}
