// The OpenAI SDK: Chat Completions and Responses.

import OpenAI from "openai";

import { collect, dataUrl, given, told, turned } from "./shared.mjs";

const library = ({ url, key, patience }) =>
  new OpenAI({ baseURL: `${url}/v1`, apiKey: key, maxRetries: 0, timeout: patience });

const failure = (error) =>
  error instanceof OpenAI.OpenAIError && {
    name: error.constructor.name,
    status: error.status ?? null,
    message: error.message,
    retry_after: error.headers?.get("retry-after") ?? null,
  };

function chat(settings) {
  const sdk = library(settings);

  async function streamed(body, seen, thoughts) {
    const runner = sdk.chat.completions.stream({ ...body, stream_options: { include_usage: true } });
    runner.on("content", (piece) => seen.push(piece));
    // Its helper keeps only the last piece of what is no part of OpenAI's own dialect.
    runner.on("chunk", (chunk) => thoughts.push(chunk.choices[0]?.delta?.reasoning_content ?? ""));
    return runner.finalChatCompletion();
  }

  return {
    ask: ({ ask }) => {
      const [seen, thoughts] = [[], []];
      return told(seen, failure, async () => {
        const body = chatBody(ask);
        const completion = await (ask.stream
          ? streamed(body, seen, thoughts)
          : sdk.chat.completions.create(body));
        const [{ message, finish_reason }] = completion.choices;
        const calls = message.tool_calls ?? [];
        const { usage } = completion;
        return {
          text: message.content || message.refusal || "",
          finish: finish_reason,
          // What every client knows of a message, and no more.
          turn: given({
            role: "assistant",
            content: message.content,
            refusal: message.refusal,
            tool_calls: calls.length
              ? calls.map(({ id, function: { name, arguments: text } }) => ({
                  id,
                  type: "function",
                  function: { name, arguments: text },
                }))
              : null,
          }),
          thoughts: ask.stream ? thoughts.join("") : (message.reasoning_content ?? ""),
          calls: calls.map((call) => ({
            id: call.id,
            name: call.function.name,
            arguments: JSON.parse(call.function.arguments),
          })),
          usage: {
            input: usage?.prompt_tokens,
            output: usage?.completion_tokens,
            cached: usage?.prompt_tokens_details?.cached_tokens,
            reasoning: usage?.completion_tokens_details?.reasoning_tokens,
          },
          refused: Boolean(message.refusal) || finish_reason === "content_filter",
          pieces: seen.length,
          model: completion.model,
        };
      });
    },
    models: () => collect(sdk.models.list(), (model) => model.id),
    model: async ({ name }) => (await sdk.models.retrieve(name)).id,
  };
}

const chatBody = ({ model, history, tools, think, schema, limit }) =>
  given({
    model,
    messages: turned(history, {
      turn: (turn) => [turn],
      results: (results) => results.map(({ id, text }) => ({ role: "tool", tool_call_id: id, content: text })),
      user: (text, images) => [
        {
          role: "user",
          content: images.length
            ? [
                { type: "text", text },
                ...images.map((image) => ({ type: "image_url", image_url: { url: dataUrl(image) } })),
              ]
            : text,
        },
      ],
    }),
    tools: tools.length
      ? tools.map(({ name, description, schema: parameters }) => ({
          type: "function",
          function: { name, description, parameters },
        }))
      : null,
    reasoning_effort: think ? "medium" : null,
    response_format: schema ? { type: "json_schema", json_schema: { name: "shape", schema, strict: true } } : null,
    max_tokens: limit,
  });

function responses(settings) {
  const sdk = library(settings);

  async function streamed(body, seen) {
    const stream = sdk.responses.stream(body);
    stream.on("response.output_text.delta", (event) => seen.push(event.delta));
    stream.on("response.refusal.delta", (event) => seen.push(event.delta));
    return stream.finalResponse();
  }

  return {
    ask: ({ ask }) => {
      const seen = [];
      return told(seen, responsesFailure, async () => {
        const body = responsesBody(ask);
        const response = await (ask.stream ? streamed(body, seen) : sdk.responses.create(body));
        if (response.status === "failed") throw new Failed(response.error?.message);
        const parts = response.output.filter((item) => item.type === "message").flatMap((item) => item.content);
        const calls = response.output.filter((item) => item.type === "function_call");
        const reasoning = response.output.filter((item) => item.type === "reasoning");
        const why = response.incomplete_details?.reason;
        const { usage } = response;
        return {
          text: parts.map((part) => part.text ?? part.refusal).join(""),
          finish: why ? `${response.status}: ${why}` : response.status,
          turn: response.output.map(({ parsed_arguments, ...item }) => ({
            ...item,
            ...(item.content && { content: item.content.map(({ parsed, ...part }) => part) }),
          })),
          thoughts: reasoning.flatMap((item) => item.summary.map((part) => part.text)).join(""),
          calls: calls.map((call) => ({ id: call.call_id, name: call.name, arguments: JSON.parse(call.arguments) })),
          usage: {
            input: usage?.input_tokens,
            output: usage?.output_tokens,
            cached: usage?.input_tokens_details?.cached_tokens,
            reasoning: usage?.output_tokens_details?.reasoning_tokens,
          },
          refused: parts.some((part) => part.type === "refusal") || why === "content_filter",
          pieces: seen.length,
          model: response.model,
        };
      });
    },
    count: async ({ model, text }) => (await sdk.responses.inputTokens.count({ model, input: text })).input_tokens,
  };
}

/** The SDK hands out a response that failed like any other. */
class Failed extends Error {}

const responsesFailure = (error) =>
  error instanceof Failed ? { name: "failed", message: error.message } : failure(error);

const responsesBody = ({ model, history, tools, think, schema, limit }) =>
  given({
    model,
    store: false,
    input: turned(history, {
      turn: (turn) => turn,
      results: (results) =>
        results.map(({ id, text }) => ({ type: "function_call_output", call_id: id, output: text })),
      user: (text, images) => [
        {
          role: "user",
          content: images.length
            ? [
                { type: "input_text", text },
                ...images.map((image) => ({ type: "input_image", image_url: dataUrl(image), detail: "auto" })),
              ]
            : text,
        },
      ],
    }),
    tools: tools.length
      ? tools.map(({ name, description, schema: parameters }) => ({
          type: "function",
          name,
          description,
          parameters,
          strict: false,
        }))
      : null,
    reasoning: think ? { effort: "medium", summary: "auto" } : null,
    include: think ? ["reasoning.encrypted_content"] : null,
    text: schema ? { format: { type: "json_schema", name: "shape", schema, strict: true } } : null,
    max_output_tokens: limit,
  });

export const clients = { chat, responses };
