# Predicted scaling on GPUs: gnuplot docs/scaling.gp >tables.md draws docs/scaling.svg and prints the tables of
# docs/scaling.md. Nothing here is measured by this project but the loads: tokens of the rank that is dealt most, which
# `bertune bench --advise --format json` counts from the lengths of waimai_10k's rows.

# Microseconds, bytes. A step of one GPU (predicted, see docs/scaling.md), and sums by NCCL (fitted to published timings).
fixed = 110.0; per_token = 0.85 / 26.3; overlap = 0.45
node = 22.7; node_rate = 196e3; node_ranks = 8
network = 32.5; hop = 8.5; nic_rate = 8 * 45e3
bytes = 13.535e6; buckets = 3
trial_steps = 1800

nodes(p) = p > node_ranks ? p / node_ranks : 1
sum(p, S) = p == 1 ? 0.0 : node + S / node_rate + (nodes(p) == 1 ? 0.0 : \
    network + 2 * hop * log(nodes(p)) / log(2) + 2 * (1 - 1.0 / nodes(p)) * S / nic_rate)
max(a, b) = a > b ? a : b
compute(tokens) = fixed + per_token * tokens
step(p, tokens) = compute(tokens) + max(sum(p, bytes) - overlap * compute(tokens), sum(p, bytes / buckets))

# ranks; strong scaling of 16, 128 and 1,024 rows a step; weak scaling of 16, 128 and 1,024 rows a rank.
$loads <<END
1 421.0 3368.0 26944.0 421.0 3368.0 26944.0
2 211.6 1684.0 13472.0 420.9 3368.0 26944.0
4 109.2 840.4 6736.0 422.0 3368.0 26944.0
8 80.4 423.3 3368.0 423.3 3368.0 26944.0
16 79.7 213.8 1684.0 424.2 3368.0 26944.0
32 79.7 122.1 840.0 424.4 3368.0 26944.0
64 79.7 120.3 424.6 424.6 3368.0 26944.0
128 79.7 120.3 214.1 424.5 3368.0 26944.0
256 79.7 120.3 128.0 424.2 3368.0 26944.0
512 79.7 120.3 128.0 424.5 3368.0 26944.0
1024 79.7 120.3 128.0 425.0 3368.0 26944.0
END
array tokens[11 * 7]
set yrange [0:1]
set table $none
plot for [c = 1:7] $loads using (tokens[7 * int($0) + c] = column(c)):(0) with points
unset table
set autoscale y

array batch[3] = [16, 128, 1024]
set print "-"
print "| GPUs | 16 rows: µs | speed-up | efficiency | 128 rows: µs | speed-up | efficiency | 1,024 rows: µs | speed-up | efficiency |"
print "| ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |"
do for [i = 0:10] {
    p = 2 ** i
    line = sprintf("| %d |", p)
    do for [b = 1:3] {
        t = step(p, tokens[7 * i + 1 + b]); one = step(1, tokens[1 + b])
        line = line.sprintf(" %.0f | %.2f | %.1f %% |", t, one / t, 100.0 * one / t / p)
    }
    print line
}
print "\n| GPUs | 16 rows: µs | samples/s | efficiency | 128 rows: µs | samples/s | efficiency | 1,024 rows: µs | samples/s | efficiency |"
print "| ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |"
do for [i = 0:10] {
    p = 2 ** i
    line = sprintf("| %d |", p)
    do for [b = 1:3] {
        t = step(p, tokens[7 * i + 4 + b]); one = step(1, tokens[4 + b])
        line = line.sprintf(" %.0f | %.3g | %.1f %% |", t, 1e6 * p * batch[b] / t, 100.0 * one / t)
    }
    print line
}
print "\n| GPUs | trials an hour, steps alone | with 1 s a trial besides |"
print "| ---: | ---: | ---: |"
seconds = 1e-6 * trial_steps * step(1, tokens[2])
do for [p in "1 8 64 1024"] {
    print sprintf("| %s | %.3g | %.3g |", p, int(p) * 3600 / seconds, int(p) * 3600 / (seconds + 1))
}

set terminal svg size 900,400 font "sans-serif,12" background "white"
set output "docs/scaling.svg"
set multiplot layout 1,2 title "MODELLED, not measured: BERT-mini on GPUs, constants from published figures"
set logscale x 2
set xtics 1,4
set xlabel "GPUs"
set grid lc rgb "#e4e9ee"
set border 3
set tics nomirror
set style line 1 lw 2 lc rgb "#2b6cb0"
set style line 2 lw 2 lc rgb "#c8691c"
set style line 3 lw 2 lc rgb "#2f855a"
set key top left
set yrange [0:5]
set ylabel "modelled speed-up, strong scaling"
plot for [b = 1:3] $loads using 1:(step(1, tokens[1 + b]) / step($1, column(1 + b))) with linespoints ls b pt 7 ps 0.4 \
    title sprintf("%d rows a step", batch[b])
set key bottom left
set ylabel "modelled efficiency, weak scaling"
set yrange [0:1.05]
plot for [b = 1:3] $loads using 1:(step(1, tokens[4 + b]) / step($1, column(4 + b))) with linespoints ls b pt 7 ps 0.4 \
    title sprintf("%d rows a GPU", batch[b])
unset multiplot
