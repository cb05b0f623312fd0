// The graph of the stations and its operator, by the formulas of stgcn_lab.graphs. No page, no network: numbers alone.

export const EARTH_RADIUS_KM = 6371.0088;

// Great-circle distance by the haversine formula; a place is {lat, lon} in degrees.
export function distanceKm(a, b) {
  const rad = Math.PI / 180;
  const [phi, psi] = [a.lat * rad, b.lat * rad];
  const h =
    Math.sin((psi - phi) / 2) ** 2 +
    Math.cos(phi) * Math.cos(psi) * Math.sin(((b.lon - a.lon) * rad) / 2) ** 2;
  return 2 * EARTH_RADIUS_KM * Math.asin(Math.sqrt(Math.min(1, h)));
}

export const pairKey = (i, j) => (i < j ? `${i}-${j}` : `${j}-${i}`);

// Every pair [i, j], i < j, of which one is among the other's k nearest: the edges of knn_graph.
export function nearestPairs(places, k) {
  checkPlaces(places);
  const keys = new Set();
  places.forEach((here, i) => {
    const others = places.map((there, j) => ({ j, km: distanceKm(here, there) })).filter(({ j }) => j !== i);
    others.sort((a, b) => a.km - b.km || a.j - b.j);
    for (const { j } of others.slice(0, k)) keys.add(pairKey(i, j));
  });
  return [...keys].map((key) => key.split("-").map(Number)).sort((a, b) => a[0] - b[0] || a[1] - b[1]);
}

// Gaussian weight of an edge: exp(-d² / 2 l²).
export const edgeWeight = (km, lengthScale) => Math.exp(-0.5 * (km / lengthScale) ** 2);

// Matrix of weights; the pairs in `cut` (a set of keys) have none.
export function adjacency(places, pairs, lengthScale, cut = new Set()) {
  const matrix = places.map(() => new Float64Array(places.length));
  for (const [i, j] of pairs) {
    if (cut.has(pairKey(i, j))) continue;
    matrix[i][j] = matrix[j][i] = edgeWeight(distanceKm(places[i], places[j]), lengthScale);
  }
  return matrix;
}

// The operator of the graph convolution, D^-1/2 (A + I) D^-1/2. Without any edge it is the identity.
export function operator(weights) {
  const loops = weights.map((row, i) => row.map((weight, j) => weight + (i === j ? 1 : 0)));
  const shrink = loops.map((row) => 1 / Math.sqrt(row.reduce((sum, weight) => sum + weight, 0)));
  return loops.map((row, i) => row.map((weight, j) => shrink[i] * weight * shrink[j]));
}

// How many edges lie between a station and each other one, up to `most`; Infinity where there are more.
export function steps(weights, from, most) {
  const found = weights.map((_, i) => (i === from ? 0 : Infinity));
  for (let step = 1; step <= most; step++) {
    weights.forEach((row, i) => {
      if (found[i] === Infinity && row.some((weight, j) => weight > 0 && found[j] === step - 1)) found[i] = step;
    });
  }
  return found;
}

function checkPlaces(places) {
  for (const { lat, lon } of places) {
    if (!(Math.abs(lat) <= 90 && Math.abs(lon) <= 180)) {
      throw new RangeError(`places: expected degrees north and east, found ${lat} and ${lon}`);
    }
  }
}
