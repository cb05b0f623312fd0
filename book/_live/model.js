// The network in ONNX Runtime Web: load it, give it what it was taught to take, and turn its answer into wind.

const RUNTIME = "ort.wasm.bundle.min.mjs";
const WASM = "ort-wasm-simd-threaded.wasm";

// A loaded network. `folder` is the URL of its files; `onProgress` hears the share, 0 to 1, of what has arrived.
export async function loadNetwork(folder, onProgress = () => {}) {
  const [ort, wasm, file] = await Promise.all([
    import(new URL(RUNTIME, folder)),
    fetchBytes(new URL(WASM, folder), onProgress),
    fetchBytes(new URL("network.onnx", folder)),
  ]);
  ort.env.wasm.numThreads = 1; // more would need headers that simple servers do not send
  ort.env.wasm.wasmBinary = wasm;
  const session = await ort.InferenceSession.create(file, { executionProviders: ["wasm"] });
  return { ort, session };
}

async function fetchBytes(url, onProgress = () => {}) {
  const answer = await fetch(url);
  const name = url.pathname.split("/").pop();
  if (!answer.ok) throw new Error(`${name}: expected a file, found status ${answer.status}`);
  const size = Number(answer.headers.get("content-length")); // of the compressed file where a server compresses
  const parts = [];
  let count = 0;
  for (const reader = answer.body.getReader(); ; ) {
    const { done, value } = await reader.read();
    if (done) break;
    parts.push(value);
    count += value.length;
    onProgress(size ? Math.min(1, count / size) : NaN);
  }
  return new Uint8Array(await new Blob(parts).arrayBuffer());
}

// Anomaly in standard deviations: of the root of the wind (m/s), against the season (of the root) and its scale.
export const anomaly = (wind, season, scale) => (Math.sqrt(wind) - season) / scale;

export const speed = (z, season, scale) => Math.max(0, season + scale * z) ** 2;

// Persistence keeps the anomaly: tomorrow's season with today's distance from it.
export const persistence = (wind, today, tomorrow) => Math.max(0, Math.sqrt(wind) - today + tomorrow) ** 2;

// (history x stations x 2) numbers: the anomaly and 1, or 0 and 0 for a station that does not report.
export function inputs(days, season, scale, reports) {
  const values = [];
  days.forEach((winds, d) =>
    winds.forEach((wind, i) => {
      if (!(wind >= 0 && wind <= 100)) throw new RangeError(`wind: expected 0 to 100 m/s, found ${wind}`);
      values.push(reports[i] ? anomaly(wind, season[d][i], scale[i]) : 0, reports[i] ? 1 : 0);
    }),
  );
  return Float32Array.from(values);
}

// The network's answer for each station, in standard deviations of its anomaly.
export async function run({ ort, session }, x, operator) {
  const count = operator.length;
  const flat = Float32Array.from(operator.flatMap((row) => [...row]));
  const history = x.length / (2 * count);
  const answer = await session.run({
    x: new ort.Tensor("float32", x, [1, history, count, 2]),
    operator: new ort.Tensor("float32", flat, [count, count]),
  });
  return [...answer.y.data];
}
