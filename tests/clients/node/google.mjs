// Google's SDK.

import { ApiError, GoogleGenAI } from "@google/genai";

import { collect, given, told, turned } from "./shared.mjs";

const failure = (error) =>
  error instanceof ApiError && { name: error.constructor.name, status: error.status, message: error.message };

const bare = (name) => name.replace(/^models\//, "");

function generate(settings) {
  const { url, key, patience } = settings;
  const sdk = new GoogleGenAI({ apiKey: key, vertexai: false, httpOptions: { baseUrl: url, timeout: patience } });

  async function chunks(asked, stream) {
    return stream ? sdk.models.generateContentStream(asked) : [await sdk.models.generateContent(asked)];
  }

  return {
    ask: ({ ask }) => {
      const seen = [];
      return told(seen, failure, async () => {
        const parts = [];
        let last;
        for await (last of await chunks(request(ask, settings), ask.stream)) {
          const fresh = last.candidates?.[0]?.content?.parts ?? [];
          parts.push(...fresh);
          seen.push(...fresh.filter((part) => part.text && !part.thought).map((part) => part.text));
        }
        const reason = last.candidates?.[0]?.finishReason ?? "BLOCKED";
        const usage = last.usageMetadata;
        return {
          text: seen.join(""),
          finish: reason,
          turn: { role: "model", parts },
          thoughts: parts
            .filter((part) => part.thought)
            .map((part) => part.text ?? "")
            .join(""),
          calls: parts
            .filter((part) => part.functionCall)
            .map(({ functionCall: { id, name, args } }) => ({ id: id ?? null, name, arguments: args ?? {} })),
          usage: usage && {
            input: usage.promptTokenCount,
            output: (usage.candidatesTokenCount ?? 0) + (usage.thoughtsTokenCount ?? 0),
            cached: usage.cachedContentTokenCount,
            reasoning: usage.thoughtsTokenCount,
          },
          refused: ["SAFETY", "BLOCKED"].includes(reason),
          pieces: seen.length,
          model: last.modelVersion,
        };
      });
    },
    models: async () => collect(await sdk.models.list({ config: { pageSize: 1000 } }), (model) => bare(model.name)),
    model: async ({ name }) => bare((await sdk.models.get({ model: name })).name),
    count: async ({ model, text }) => (await sdk.models.countTokens({ model, contents: text })).totalTokens,
  };
}

const request = ({ model, history, tools, think, schema, limit }, { budget }) => ({
  model,
  contents: turned(history, {
    turn: (turn) => [turn],
    results: (results) => [
      {
        role: "user",
        parts: results.map(({ id, name, text }) => ({
          functionResponse: given({ id, name, response: { output: text } }),
        })),
      },
    ],
    user: (text, images) => [
      {
        role: "user",
        parts: [{ text }, ...images.map((data) => ({ inlineData: { mimeType: "image/png", data } }))],
      },
    ],
  }),
  config: given({
    tools: tools.length
      ? [
          {
            functionDeclarations: tools.map(({ name, description, schema: parametersJsonSchema }) => ({
              name,
              description,
              parametersJsonSchema,
            })),
          },
        ]
      : null,
    thinkingConfig: think ? { includeThoughts: true, thinkingBudget: budget } : null,
    responseMimeType: schema ? "application/json" : null,
    responseJsonSchema: schema,
    maxOutputTokens: limit,
  }),
});

export const clients = { generate };
