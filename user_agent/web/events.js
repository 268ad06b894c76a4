// Server-sent events read from a fetch: the browser's own EventSource cannot send the key.

/** The events of a response as they come: {event, data, id}; comments are left out. */
export async function* readEvents(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      const parts = (rest + value).split(/\r?\n\r?\n/);
      rest = parts.pop();
      for (const part of parts) {
        const event = parse(part);
        if (event.data) yield event;
      }
    }
  } finally {
    reader.cancel().catch(() => {});
  }
}

function parse(part) {
  const event = { event: "message", data: "", id: "" };
  for (const line of part.split(/\r?\n/)) {
    const match = line.match(/^(event|data|id): ?(.*)$/);
    if (match) event[match[1]] = match[1] === "data" && event.data ? `${event.data}\n${match[2]}` : match[2];
  }
  return event;
}
