import java.time.Duration;
import java.util.*;
import org.apache.kafka.clients.admin.*;
import org.apache.kafka.clients.consumer.*;
import org.apache.kafka.clients.producer.*;
import org.apache.kafka.common.serialization.*;

/** `create BROKER TOPIC...` makes topics; `read BROKER TOPIC` prints a topic's values, one a line; `write BROKER TOPIC` sends
 * each line of the input to it, and says `sent` when the broker has it. */
public class Topics {
    public static void main(String[] words) throws Exception {
        Map<String, Object> broker = Map.of("bootstrap.servers", words[1]);
        List<String> topics = Arrays.asList(words).subList(2, words.length);
        if (words[0].equals("create")) {
            try (Admin admin = Admin.create(broker)) {
                admin.createTopics(topics.stream().map(name -> new NewTopic(name, 3, (short) 1).configs(java.util.Map.of("message.timestamp.type", "LogAppendTime"))).toList()).all().get();
            }
            return;
        }
        if (words[0].equals("write")) {
            try (var writer = new KafkaProducer<String, String>(broker, new StringSerializer(), new StringSerializer())) {
                writer.partitionsFor(topics.get(0));
                System.out.println("ready");
                for (var line : (Iterable<String>) new java.io.BufferedReader(new java.io.InputStreamReader(System.in)).lines()::iterator) {
                    writer.send(new ProducerRecord<>(topics.get(0), line)).get();
                    System.out.println("sent");
                }
            }
            return;
        }
        try (var reader = new KafkaConsumer<>(broker, new StringDeserializer(), new StringDeserializer())) {
            var parts = reader.partitionsFor(topics.get(0)).stream()
                .map(part -> new org.apache.kafka.common.TopicPartition(part.topic(), part.partition())).toList();
            reader.assign(parts);
            reader.seekToBeginning(parts);
            var end = reader.endOffsets(parts);
            while (parts.stream().anyMatch(part -> reader.position(part) < end.get(part)))
                for (var one : reader.poll(Duration.ofMillis(200)))
                    if (one.value() != null) System.out.println(one.value());
        }
    }
}
