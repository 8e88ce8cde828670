// Answers one line of JSON on standard input with another on standard output: what the client library named in the
// arguments made of an answer. `../sdk/node.py` says what is asked.

import { createInterface } from "node:readline";

// Warnings of the libraries must not stand between the answers.
for (const name of ["log", "info", "warn", "debug"]) console[name] = console.error;

const { clients } = await import(`./${process.argv[2]}.mjs`);

async function answer({ kind, operation, settings, ...asked }) {
  try {
    return { answer: await clients[kind](settings)[operation](asked) };
  } catch (error) {
    if (error.failure) return { failure: error.failure };
    return { broken: error.stack ?? String(error) };
  }
}

for await (const line of createInterface({ input: process.stdin })) {
  process.stdout.write(`${JSON.stringify(await answer(JSON.parse(line)))}\n`);
}
